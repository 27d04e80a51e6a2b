//! The latencies of every interval as an `HdrHistogram` interval log, which the usual log tools read.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// An interval log in memory; its values are nanoseconds.
pub(crate) struct HdrLog {
    bytes: Vec<u8>,
    serializer: V2DeflateSerializer,
}

impl HdrLog {
    /// An empty log of a run that began at this time, which the intervals count from.
    pub(crate) fn new(started: SystemTime) -> Self {
        let mut log = Self { bytes: Vec::new(), serializer: V2DeflateSerializer::new() };
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("Values are nanoseconds.")
            .with_start_time(started)
            .with_base_time(started)
            .begin_log_with(&mut log.bytes, &mut log.serializer)
            .expect("memory takes all that is written to it");
        log.bytes.extend_from_slice(LEGEND);
        log
    }

    /// Appends what was recorded from `begin` to `end`, both since the start of the run.
    ///
    /// Readers expect the intervals in the order of their begin. A tag may hold neither spaces nor commas: they
    /// become `_`. An empty tag is none.
    ///
    /// # Errors
    ///
    /// If the histogram cannot be encoded; the log is then as before.
    pub(crate) fn interval(
        &mut self,
        tag: &str,
        begin: Duration,
        end: Duration,
        histogram: &Histogram<u64>,
    ) -> Result<()> {
        let tag = tag.replace([' ', ',', '\r', '\n'], "_");
        let tag = if tag.is_empty() { None } else { Tag::new(&tag) };
        let before = self.bytes.len();
        let written = IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.bytes, &mut self.serializer)
            .context("memory takes all that is written to it")
            .and_then(|mut writer| {
                writer
                    .write_histogram(histogram, begin, end.saturating_sub(begin), tag)
                    .context("cannot encode the latencies of an interval")
            });
        if written.is_err() {
            self.bytes.truncate(before);
        }
        written
    }

    /// The log as it stands.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

const LEGEND: &[u8] =
    b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

#[cfg(test)]
mod tests {
    use base64::Engine;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let mut log = HdrLog::new(SystemTime::UNIX_EPOCH + STARTED);
        log.interval("delivery", Duration::ZERO, Duration::from_secs(1), &histogram(&[1_000, 2_000_000]))
            .unwrap();
        log.interval(
            "last one, really",
            Duration::from_secs(1),
            Duration::from_millis(2_500),
            &histogram(&[7]),
        )
        .unwrap();
        log.interval("", Duration::from_secs(2), Duration::from_secs(3), &histogram(&[])).unwrap();

        let bytes = log.into_bytes();
        let entries: Vec<_> = IntervalLogIterator::new(&bytes).map(|entry| entry.unwrap()).collect();

        assert!(
            entries.contains(&LogEntry::StartTime(STARTED)) && entries.contains(&LogEntry::BaseTime(STARTED))
        );
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| if let LogEntry::Interval(interval) = entry { Some(interval) } else { None })
            .collect();
        let tags: Vec<_> = intervals.iter().map(|interval| interval.tag().map(|tag| tag.as_str())).collect();
        assert_eq!(tags, [Some("delivery"), Some("last_one__really"), None]);
        assert_eq!(intervals[1].start_timestamp(), Duration::from_secs(1));
        assert_eq!(intervals[1].duration(), Duration::from_millis(1_500));
        let decoded =
            base64::engine::general_purpose::STANDARD.decode(intervals[0].encoded_histogram()).unwrap();
        let decoded: Histogram<u64> = Deserializer::new().deserialize(&mut decoded.as_slice()).unwrap();
        assert_eq!(decoded, histogram(&[1_000, 2_000_000]));
    }

    #[test]
    fn an_interval_that_ends_before_it_begins_lasts_no_time() {
        let mut log = HdrLog::new(SystemTime::UNIX_EPOCH);
        log.interval("x", Duration::from_secs(2), Duration::from_secs(1), &histogram(&[1])).unwrap();
        assert!(String::from_utf8(log.into_bytes()).unwrap().contains("Tag=x,2.000,0.000,1.000,"));
    }

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for value in values {
            histogram.record(*value).unwrap();
        }
        histogram
    }

    const STARTED: Duration = Duration::from_secs(1_790_000_000);
}
