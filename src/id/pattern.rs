//! Patterns of names.

/// Whether `pattern`, in which `*` stands for any bytes or none, fits the whole of `name`.
///
/// Linear in space and at most quadratic in time: only the last `*` is ever tried again, at one place further on.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut in_pattern, mut in_name) = (0, 0);
    let mut retry = None;
    while in_name < name.len() {
        match (pattern.get(in_pattern), retry) {
            (Some(b'*'), _) => {
                retry = Some((in_pattern + 1, in_name));
                in_pattern += 1;
            }
            (Some(byte), _) if *byte == name[in_name] => {
                in_pattern += 1;
                in_name += 1;
            }
            (_, Some((after_star, tried))) => {
                retry = Some((after_star, tried + 1));
                in_pattern = after_star;
                in_name = tried + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[in_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let fits = matches_pattern;
        assert!(
            fits("*", "")
                && fits("*", "any")
                && fits("a*", "a")
                && fits("*a", "bba")
                && fits("a*b*c", "a-b-b-c")
        );
        assert!(fits("**", "x") && fits("ä*", "äö") && fits("a*ab", "aaab"));
        assert!(!fits("a", "ab") && !fits("", "a") && !fits("a*b", "abc") && !fits("a*b*c", "a-c-b"));
    }
}
