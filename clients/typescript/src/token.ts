/** When the JWT expires, in milliseconds since 1970; undefined when it does not say so, or is none. */
export function expiry(token: string): number | undefined {
  try {
    const claims = token.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(claims));
    return typeof exp === "number" ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

/** After how many milliseconds to get a new token when this one still lasts for `left`: half a minute before, or after three quarters. */
export const renewal = (left: number): number => Math.max(left - 30_000, left * 0.75);
