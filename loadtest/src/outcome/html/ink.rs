//! The colours of the plots: drawn in those of paper, and followed to the dark by the page's style sheet.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Grid,
    Axis,
    Label,
    /// Behind the measured phases.
    Measured,
    /// Behind the others.
    Unmeasured,
    /// One of the lines; after the last colour the first comes again.
    Line(usize),
}

impl Ink {
    /// The colour on paper.
    pub(super) fn colour(self) -> RGBColor {
        let (red, green, blue) = self.shade().light;
        RGBColor(red, green, blue)
    }

    /// The name of its CSS variable.
    pub(super) fn variable(self) -> String {
        let shade = self.shade();
        format!("--{}", shade.name)
    }

    fn shade(self) -> &'static Shade {
        &SHADES[match self {
            Self::Grid => 0,
            Self::Axis => 1,
            Self::Label => 2,
            Self::Measured => 3,
            Self::Unmeasured => 4,
            Self::Line(index) => FIXED + index % (SHADES.len() - FIXED),
        }]
    }
}

/// The variables for light and dark, and the rules that put them in the place of the drawn colours.
pub(super) fn style() -> String {
    let variables = |of: fn(&Shade) -> (u8, u8, u8)| {
        SHADES.iter().fold(String::new(), |mut text, shade| {
            write!(text, "--{}:{};", shade.name, hex(of(shade)))
                .expect("a text takes all that is written to it");
            text
        })
    };
    let (light, dark) = (variables(|shade| shade.light), variables(|shade| shade.dark));
    let mut style = format!(":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n");
    for shade in &SHADES {
        let (name, colour) = (shade.name, hex(shade.light));
        for kind in ["fill", "stroke"] {
            writeln!(style, "svg [{kind}=\"{colour}\"]{{{kind}:var(--{name})}}")
                .expect("a text takes all that is written to it");
        }
    }
    style
}

/// As the SVG backend writes it.
fn hex((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

struct Shade {
    name: &'static str,
    light: (u8, u8, u8),
    dark: (u8, u8, u8),
}

const fn shade(name: &'static str, light: u32, dark: u32) -> Shade {
    const fn parts(colour: u32) -> (u8, u8, u8) {
        let [_, red, green, blue] = colour.to_be_bytes();
        (red, green, blue)
    }
    Shade { name, light: parts(light), dark: parts(dark) }
}

/// How many stand before the lines.
const FIXED: usize = 5;

/// The light ones differ from each other, since rules find them by it.
const SHADES: [Shade; 13] = [
    shade("grid", 0x00E6_E8EC, 0x002A_303B),
    shade("axis", 0x00C3_C8D0, 0x0047_4F5E),
    shade("label", 0x0066_6E7B, 0x0095_9EAD),
    shade("measured", 0x00F1_F5FE, 0x0019_2233),
    shade("unmeasured", 0x00F7_F7F8, 0x0018_1C23),
    shade("line-a", 0x0025_63EB, 0x0060_A5FA),
    shade("line-b", 0x00D9_7706, 0x00FB_BF24),
    shade("line-c", 0x00DB_2777, 0x00F4_72B6),
    shade("line-d", 0x0005_9669, 0x0034_D399),
    shade("line-e", 0x007C_3AED, 0x00A7_8BFA),
    shade("line-f", 0x0008_91B2, 0x0022_D3EE),
    shade("line-g", 0x0065_A30D, 0x00A3_E635),
    shade("line-h", 0x0092_400E, 0x00FB_923C),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_inks_are_drawn_alike() {
        for (index, shade) in SHADES.iter().enumerate() {
            assert!(
                SHADES[..index].iter().all(|other| other.light != shade.light && other.name != shade.name)
            );
        }
    }

    #[test]
    fn every_ink_has_a_rule_for_its_colour_and_both_modes() {
        let style = style();
        assert!(style.contains("svg [stroke=\"#2563EB\"]{stroke:var(--line-a)}"));
        assert_eq!(style.matches("--line-a:").count(), 2);
        assert_eq!(Ink::Line(8).variable(), Ink::Line(0).variable());
    }
}
