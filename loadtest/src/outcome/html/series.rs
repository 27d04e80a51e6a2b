//! From samples to few enough points to draw.

/// How several points become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    Mean,
    /// So that a short peak stays visible.
    Max,
}

/// A point of a line; without a value the line is interrupted there.
pub(super) type Point = (f64, Option<f64>);

/// At most so many points, each for about as many neighbours; values that are no finite numbers become gaps.
pub(super) fn merged(points: impl Iterator<Item = Point>, points_max: usize, merge: Merge) -> Vec<Point> {
    let points: Vec<_> = points
        .filter(|(at, _)| at.is_finite())
        .map(|(at, value)| (at, value.filter(|value| value.is_finite())))
        .collect();
    let group = points.len().div_ceil(points_max.max(1)).max(1);
    points.chunks(group).map(|group| one(group, merge)).collect()
}

/// The stretches of a line between its gaps.
pub(super) fn stretches(points: &[Point]) -> Vec<Vec<(f64, f64)>> {
    let known = points.split(|(_, value)| value.is_none());
    let known =
        known.map(|stretch| stretch.iter().filter_map(|(at, value)| Some((*at, (*value)?))).collect());
    known.filter(|stretch: &Vec<_>| !stretch.is_empty()).collect()
}

fn one(group: &[Point], merge: Merge) -> Point {
    let at = group[group.len() - 1].0;
    let values = group.iter().filter_map(|(_, value)| *value);
    let value = match merge {
        Merge::Max => values.reduce(f64::max),
        Merge::Mean => {
            let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
            (count > 0.0).then(|| sum / count)
        }
    };
    (at, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_points_stay_as_they_are() {
        let points = [(1.0, Some(2.0)), (2.0, None), (3.0, Some(4.0))];
        assert_eq!(merged(points.into_iter(), 3, Merge::Max), points);
        assert_eq!(merged(std::iter::empty(), 3, Merge::Max), []);
    }

    #[test]
    fn many_points_are_merged_and_no_peak_is_lost() {
        let points = (0..100_000).map(|at| (f64::from(at), Some(if at == 777 { 9.0 } else { 1.0 })));
        let peaks = merged(points.clone(), 2_000, Merge::Max);
        assert!(peaks.len() <= 2_000 && peaks.iter().filter(|(_, value)| *value == Some(9.0)).count() == 1);
        let means = merged(points, 7, Merge::Mean);
        assert!(means.len() == 7 && means[1..].iter().all(|(_, value)| *value == Some(1.0)));
    }

    #[test]
    fn what_is_no_number_becomes_a_gap() {
        let points =
            [(1.0, Some(f64::NAN)), (f64::NAN, Some(1.0)), (2.0, Some(f64::INFINITY)), (3.0, Some(3.0))];
        assert_eq!(merged(points.into_iter(), 9, Merge::Mean), [(1.0, None), (2.0, None), (3.0, Some(3.0))]);
        assert_eq!(merged(points.into_iter(), 1, Merge::Mean), [(3.0, Some(3.0))]);
    }

    #[test]
    fn a_line_falls_into_stretches_at_its_gaps() {
        let points =
            [(0.0, None), (1.0, Some(1.0)), (2.0, Some(2.0)), (3.0, None), (4.0, None), (5.0, Some(5.0))];
        assert_eq!(stretches(&points), [vec![(1.0, 1.0), (2.0, 2.0)], vec![(5.0, 5.0)]]);
        assert!(stretches(&[(1.0, None)]).is_empty() && stretches(&[]).is_empty());
    }
}
