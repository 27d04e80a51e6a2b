//! One plot as SVG.

use std::error::Error;
use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;

use super::axis::{Axis, Quantity};
use super::ink::Ink;
use super::series::{Merge, Point, merged, stretches};

/// What is to be drawn, at any size.
pub(super) struct Plot {
    pub(super) x: Quantity,
    pub(super) y: Quantity,
    pub(super) lines: Vec<Line>,
    /// Parts of the x axis with a shade and a name.
    pub(super) bands: Vec<Band>,
}

pub(super) struct Line {
    pub(super) name: String,
    pub(super) ink: Ink,
    pub(super) points: Vec<Point>,
    /// Where there are more points than there is room for.
    pub(super) merge: Merge,
    /// The area below is shaded.
    pub(super) filled: bool,
}

pub(super) struct Band {
    pub(super) name: String,
    pub(super) begin: f64,
    pub(super) end: f64,
    pub(super) measured: bool,
}

/// In the pixels of the style sheet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Say the values where somebody points at.
    pub(super) pointed: bool,
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;
type Drawn = Result<(), Box<dyn Error>>;

impl Plot {
    /// Whether there is nothing to draw but zeros.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(Line::is_empty)
    }

    /// The plot as an SVG element.
    ///
    /// # Errors
    ///
    /// If the size leaves no room for the plot within its axes.
    pub(super) fn draw(&self, size: Size) -> Result<Markup, Box<dyn Error>> {
        let points_max = usize::try_from(size.width)?.clamp(2, POINTS_MAX);
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| (line, merged(line.points.iter().copied(), points_max, line.merge)))
            .collect();
        let every_x = lines.iter().flat_map(|(_, points)| points.iter().map(|(at, _)| *at));
        let banded = self.bands.iter().flat_map(|band| [band.begin, band.end]);
        let x = Axis::new(self.x, every_x.chain(banded), size.width / 76);
        let every_y = lines.iter().flat_map(|(_, points)| points.iter().filter_map(|(_, value)| *value));
        let y = Axis::new(self.y, every_y, size.height / 44);

        let mut svg = String::new();
        let (across, down, overlay);
        {
            let root = SVGBackend::with_string(&mut svg, (size.width * SCALE, size.height * SCALE))
                .into_drawing_area();
            let mut builder = ChartBuilder::on(&root);
            builder.margin_right(14 * SCALE).margin_top(if self.bands.is_empty() { 10 } else { 22 } * SCALE);
            builder.x_label_area_size(24 * SCALE).y_label_area_size(58 * SCALE);
            let mut chart = builder.build_cartesian_2d(x.clone(), y.clone())?;
            (across, down) = chart.plotting_area().get_pixel_range();
            self.shade(&mut chart, &x, &y)?;
            mesh(&mut chart)?;
            for (line, points) in &lines {
                self.line(&mut chart, line, points, &y)?;
            }
            let place = |at: f64| chart.backend_coord(&(self.x.place(at), y.begin)).0;
            overlay = html! {
                (self.names(&across, &down, place))
                @if size.pointed { (self.readings(&lines, &across, &down, place)) }
            };
            root.present()?;
        }
        let open = svg.trim_end().strip_suffix("</svg>").ok_or("the drawing has no end")?;
        Ok(html! { (PreEscaped(open)) (overlay) (PreEscaped("</svg>")) })
    }

    /// The bands behind everything.
    fn shade(&self, chart: &mut Chart<'_>, x: &Axis, y: &Axis) -> Drawn {
        for band in &self.bands {
            let corners = [(band.begin.max(x.begin), y.begin), (band.end.min(x.end), y.end)];
            let ink = if band.measured { Ink::Measured } else { Ink::Unmeasured };
            chart.draw_series([Rectangle::new(corners, ink.colour().filled())])?;
        }
        for band in self.bands.iter().skip(1) {
            let edge = vec![(band.begin, y.begin), (band.begin, y.end)];
            chart.draw_series([PathElement::new(edge, Ink::Axis.colour().stroke_width(SCALE))])?;
        }
        Ok(())
    }

    fn line(&self, chart: &mut Chart<'_>, line: &Line, points: &[Point], y: &Axis) -> Drawn {
        let colour = line.ink.colour();
        for stretch in stretches(points) {
            let placed: Vec<_> =
                stretch.iter().map(|(at, value)| (self.x.place(*at), self.y.place(*value))).collect();
            if let [alone] = placed[..] {
                chart.draw_series([Circle::new(alone, 3 * SCALE, colour.filled())])?;
                continue;
            }
            if line.filled {
                chart.draw_series(AreaSeries::new(placed.iter().copied(), y.begin, colour.mix(0.12)))?;
            }
            chart.draw_series([PathElement::new(placed, colour.stroke_width(2 * SCALE))])?;
        }
        Ok(())
    }

    /// The names of the bands above them, where they have room.
    fn names(&self, across: &Range<i32>, down: &Range<i32>, place: impl Fn(f64) -> i32) -> Markup {
        let labels = self.bands.iter().map(|band| {
            let (begin, end) = (place(band.begin).max(across.start), place(band.end).min(across.end));
            (band, begin + (end - begin) / 2, end - begin)
        });
        html! {
            @for (band, middle, width) in labels {
                @if width > letters(band.name.chars().count()) {
                    text.band x=(middle) y=(down.start - scaled(6)) { (band.name) }
                }
            }
        }
    }

    /// Invisible columns that show the values of their place when pointed at.
    fn readings(
        &self,
        lines: &[(&Line, Vec<Point>)],
        across: &Range<i32>,
        down: &Range<i32>,
        place: impl Fn(f64) -> i32,
    ) -> Markup {
        let Some((_, longest)) = lines.iter().max_by_key(|(_, points)| points.len()) else { return html! {} };
        let every = longest.len().div_ceil(COLUMNS_MAX).max(1);
        let stops: Vec<_> = longest.iter().step_by(every).map(|(at, _)| (*at, place(*at))).collect();
        let columns = stops.iter().enumerate().map(|(index, (at, middle))| {
            let begin =
                index.checked_sub(1).map_or(across.start, |before| i32::midpoint(stops[before].1, *middle));
            let end = stops.get(index + 1).map_or(across.end, |after| i32::midpoint(after.1, *middle));
            (*at, *middle, begin, end - begin)
        });
        html! {
            @for (at, middle, begin, width) in columns {
                g.at {
                    rect x=(begin) y=(down.start) width=(width.max(0)) height=(down.end - down.start) {}
                    line x1=(middle) x2=(middle) y1=(down.start) y2=(down.end) {}
                    text x=(across.start + scaled(8)) y=(down.start + scaled(15)) {
                        tspan { (self.x.read(at)) }
                        @for (line, points) in lines {
                            @if let Some(value) = nearest(points, at) {
                                tspan dx=(scaled(10)) style={ "fill:var(" (line.ink.variable()) ")" } {
                                    (line.name) " " (self.y.read(value))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Line {
    /// Whether there is nothing to draw but zeros.
    pub(super) fn is_empty(&self) -> bool {
        !self.points.iter().any(|(_, value)| value.is_some_and(|value| value.is_finite() && value != 0.0))
    }
}

fn mesh(chart: &mut Chart<'_>) -> Drawn {
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(Ink::Grid.colour().stroke_width(SCALE))
        .light_line_style(TRANSPARENT)
        .axis_style(Ink::Axis.colour().stroke_width(SCALE))
        .set_all_tick_mark_size(4 * SCALE)
        .label_style(
            ("sans-serif", LETTERS * f64::from(SCALE) * 1.24).into_font().color(&Ink::Label.colour()),
        )
        .draw()?;
    Ok(())
}

/// The value of the point that is nearest to this place.
fn nearest(points: &[Point], at: f64) -> Option<f64> {
    let near = points.iter().min_by(|(a, _), (b, _)| (a - at).abs().total_cmp(&(b - at).abs()));
    near.and_then(|(_, value)| *value)
}

fn scaled(pixels: i32) -> i32 {
    pixels * SCALE.cast_signed()
}

/// About the width of so many letters.
fn letters(count: usize) -> i32 {
    scaled(7) * i32::try_from(count).unwrap_or(i32::MAX / scaled(7))
}

/// The backend knows whole numbers only, so it draws on larger paper.
const SCALE: u32 = 4;
/// The height of a label in pixels.
const LETTERS: f64 = 11.5;
const POINTS_MAX: usize = 2_000;
const COLUMNS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::super::super::figure::Unit;
    use super::*;

    #[test]
    fn a_gap_interrupts_the_line_and_a_lonely_point_is_a_dot() {
        let svg = drawn(&[(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(3.0))], &[]);
        assert_eq!(svg.matches("stroke=\"#2563EB\" stroke-width=\"8\" points").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 1);
    }

    #[test]
    fn more_points_than_pixels_are_not_drawn() {
        let points: Vec<_> = (0..50_000).map(|at| (f64::from(at), Some(f64::from(at % 7)))).collect();
        let svg = drawn(&points, &[]);
        assert!(svg.len() < 40_000, "{} bytes", svg.len());
        assert!(svg.matches("class=\"at\"").count() <= COLUMNS_MAX);
    }

    #[test]
    fn a_band_is_named_where_its_name_has_room() {
        let points = [(0.0, Some(1.0)), (100.0, Some(2.0))];
        let svg = drawn(&points, &[("steady", 0.0, 98.0), ("short", 98.0, 100.0)]);
        assert!(svg.contains(">steady</text>") && !svg.contains("short"));
    }

    #[test]
    fn whoever_points_at_a_place_reads_the_values_there() {
        let svg = drawn(&[(0.0, Some(1.0)), (61.0, Some(2_500.0))], &[]);
        assert!(svg.contains("<tspan>1:01</tspan>") && svg.contains("open 2,500"));
    }

    #[test]
    fn a_size_without_room_is_no_panic() {
        let plot = plot(&[(0.0, Some(1.0))], &[]);
        for (width, height) in [(0, 0), (1, 1), (60, 30), (400, 10)] {
            drop(plot.draw(Size { width, height, pointed: true }));
        }
    }

    fn drawn(points: &[Point], bands: &[(&str, f64, f64)]) -> String {
        plot(points, bands).draw(Size { width: 400, height: 200, pointed: true }).unwrap().into_string()
    }

    fn plot(points: &[Point], bands: &[(&str, f64, f64)]) -> Plot {
        let bands = bands.iter().map(|(name, begin, end)| Band {
            name: (*name).to_owned(),
            begin: *begin,
            end: *end,
            measured: true,
        });
        let line = Line {
            name: "open".to_owned(),
            ink: Ink::Line(0),
            points: points.to_vec(),
            merge: Merge::Max,
            filled: false,
        };
        Plot {
            x: Quantity::Moment,
            y: Quantity::Amount(Unit::Count),
            lines: vec![line],
            bands: bands.collect(),
        }
    }
}
