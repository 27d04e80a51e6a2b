//! A histogram as a metrics page has it: how many observations were at most so large.

/// Observations of at most `upper`, those of all smaller buckets among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Invariant: at least one bucket, upper bounds ascending, each once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Buckets(Vec<Bucket>);

impl Buckets {
    /// Sorts the buckets and adds up those of one bound; `None` when there are none.
    pub(crate) fn new(buckets: impl IntoIterator<Item = Bucket>) -> Option<Self> {
        let mut sorted: Vec<Bucket> = buckets.into_iter().collect();
        sorted.sort_by(|one, other| one.upper.total_cmp(&other.upper));
        sorted.dedup_by(|next, kept| {
            let is_same = next.upper.total_cmp(&kept.upper).is_eq();
            kept.count += if is_same { next.count } else { 0.0 };
            is_same
        });
        (!sorted.is_empty()).then_some(Self(sorted))
    }

    /// What was observed since `before`, the same histogram at an earlier time.
    #[must_use]
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |upper: f64| {
            let same = before.0.iter().find(|bucket| bucket.upper.total_cmp(&upper).is_eq());
            same.map_or(0.0, |bucket| bucket.count)
        };
        let later = |bucket: &Bucket| Bucket { count: bucket.count - earlier(bucket.upper), ..*bucket };
        Self(self.0.iter().map(later).collect())
    }

    /// All observations.
    pub(crate) fn total(&self) -> f64 {
        self.0.last().map_or(0.0, |bucket| bucket.count)
    }

    /// The index of the bucket that a value falls into. What is above every bound falls into the last one.
    pub(crate) fn index_of(&self, value: f64) -> usize {
        self.0.partition_point(|bucket| bucket.upper < value).min(self.0.len() - 1)
    }

    /// The index of the bucket that holds a quantile (0 to 1); `None` when nothing was observed.
    pub(crate) fn index_of_quantile(&self, quantile: f64) -> Option<usize> {
        let rank = (quantile * self.total()).max(1.0);
        (self.total() >= 1.0).then(|| self.0.partition_point(|bucket| bucket.count < rank)).map(|index| {
            // Rounding may ask for a little more than all.
            index.min(self.0.len() - 1)
        })
    }

    /// The upper bound of a bucket; where that is infinite, the greatest finite bound.
    pub(crate) fn bound(&self, index: usize) -> f64 {
        let finite = self.0[..=index].iter().rfind(|bucket| bucket.upper.is_finite());
        finite.map_or(0.0, |bucket| bucket.upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: [f64; 4]) -> Buckets {
        let uppers = [0.001, 0.01, 0.1, f64::INFINITY];
        let buckets = uppers.into_iter().zip(counts).map(|(upper, count)| Bucket { upper, count });
        Buckets::new(buckets).unwrap()
    }

    #[test]
    fn finds_the_bucket_of_a_value_by_its_upper_bound() {
        let buckets = buckets([0.0; 4]);

        assert_eq!([0.0, 0.001, 0.001_1, 0.1, 7.0].map(|value| buckets.index_of(value)), [0, 0, 1, 2, 3]);
    }

    #[test]
    fn finds_the_bucket_of_a_quantile() {
        let buckets = buckets([10.0, 50.0, 99.0, 100.0]);
        let of = |quantile| buckets.index_of_quantile(quantile).unwrap();

        assert_eq!([0.0, 0.1, 0.11, 0.5, 0.51, 0.99, 1.0].map(of), [0, 0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn has_no_quantile_without_observations() {
        assert_eq!(buckets([0.0; 4]).index_of_quantile(0.5), None);
    }

    #[test]
    fn leaves_out_what_was_observed_before() {
        let before = buckets([10.0, 10.0, 10.0, 10.0]);
        let after = buckets([10.0, 10.0, 14.0, 14.0]);

        let since = after.since(&before);

        assert_eq!(since, buckets([0.0, 0.0, 4.0, 4.0]));
        assert_eq!(since.index_of_quantile(0.01), Some(2));
    }

    #[test]
    fn an_infinite_bound_is_told_by_the_greatest_finite_one() {
        let buckets = buckets([0.0; 4]);

        let bounds: Vec<_> = [0, 2, 3].iter().map(|index| buckets.bound(*index)).collect();

        assert_eq!(bounds, [0.001, 0.1, 0.1]);
    }
}
