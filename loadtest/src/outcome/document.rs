//! The outcome as a document: `result.json` and the files beside it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Outcome, SCHEMA, html};

impl Outcome {
    /// Reads a `result.json`.
    ///
    /// # Errors
    ///
    /// If it is no such document, or one of a schema that this version does not know.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        /// The one field that every version has.
        #[derive(Deserialize)]
        struct Version {
            schema: String,
        }
        let Version { schema } = serde_json::from_str(text)
            .context("this is no result of a load test: expected JSON with a `schema`")?;
        if schema != SCHEMA {
            bail!(
                "the result has the schema `{schema}`, but this version reads `{SCHEMA}`: read it with the version of \
                 fanfare-loadtest that wrote it, or run the test again"
            );
        }
        serde_json::from_str(text)
            .with_context(|| format!("the result does not follow its schema, `{SCHEMA}`"))
    }

    /// The document as JSON, without the figures that are no finite numbers, for which JSON has no words.
    ///
    /// # Errors
    ///
    /// None are known; the serializer's type has them.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut finite = self.clone();
        finite.figures.retain(|_, figure| figure.is_finite());
        for phase in &mut finite.phases {
            phase.figures.retain(|_, figure| figure.is_finite());
        }
        for points in finite.spectra.values_mut() {
            points.retain(|point| point.quantile.is_finite() && point.us.is_finite());
        }
        for sample in &mut finite.samples {
            let rates = [
                &mut sample.published_per_second,
                &mut sample.deliveries_per_second,
                &mut sample.client_cpu_percent,
            ];
            for rate in rates.into_iter().filter(|rate| !rate.is_finite()) {
                *rate = 0.0;
            }
        }
        serde_json::to_string_pretty(&finite).context("cannot write the result as JSON")
    }

    /// Makes the directory that [`Self::write_to`] will write into, before a run that would be in vain.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn prepare(directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create the directory {}", directory.display()))
    }

    /// Writes `result.json`, `report.html` and `latency.hlog` (the bytes of an [`HdrLog`]) into a directory, which is
    /// created if need be.
    ///
    /// # Errors
    ///
    /// If one cannot be written; those before it then stand.
    pub(crate) fn write_to(&self, directory: &Path, latency_log: &[u8]) -> Result<()> {
        Self::prepare(directory)?;
        let json = self.to_json()?;
        let page = html(self);
        let files = [
            ("result.json", json.as_bytes()),
            ("report.html", page.as_bytes()),
            ("latency.hlog", latency_log),
        ];
        for (name, bytes) in files {
            let path = directory.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SpectrumPoint, sample};
    use super::*;

    #[test]
    fn a_written_result_is_read_back_as_it_was() {
        let outcome = sample::sample();
        assert_eq!(Outcome::from_json(&outcome.to_json().unwrap()).unwrap(), outcome);
    }

    #[test]
    fn figures_that_are_no_numbers_are_left_out_so_that_the_result_can_be_read() {
        let mut outcome = sample::sample();
        outcome.figures.insert("kept_percent".into(), f64::NAN);
        outcome.phases[0].figures.insert("kept_percent".into(), f64::INFINITY);
        outcome.samples[0].deliveries_per_second = f64::NAN;
        outcome
            .spectra
            .entry("delivery".into())
            .or_default()
            .push(SpectrumPoint { quantile: 1.0, us: f64::NAN });
        let read = Outcome::from_json(&outcome.to_json().unwrap()).unwrap();
        assert!(!read.figures.contains_key("kept_percent"));
    }

    #[test]
    fn another_schema_and_what_is_no_result_are_refused() {
        let error = |text: &str| format!("{:#}", Outcome::from_json(text).unwrap_err());
        assert!(
            error(r#"{"schema":"fanfare-loadtest/9"}"#)
                .contains("`fanfare-loadtest/9`, but this version reads")
        );
        assert!(error(r#"{"schema":"fanfare-loadtest/2"}"#).contains("does not follow its schema"));
        assert!(error("{}").contains("no result of a load test"));
        assert!(error("hello").contains("no result of a load test"));
    }

    #[test]
    fn the_files_are_written_into_a_new_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("deep/out");
        sample::sample().write_to(&directory, b"log").unwrap();
        assert_eq!(fs::read(directory.join("latency.hlog")).unwrap(), b"log");
        assert!(fs::read_to_string(directory.join("report.html")).unwrap().starts_with("<!DOCTYPE html>"));
        Outcome::from_json(&fs::read_to_string(directory.join("result.json")).unwrap()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let error = sample::sample().write_to(&file.join("out"), b"").unwrap_err();
        assert!(
            error.to_string().contains("cannot create the directory") && error.to_string().contains("out")
        );
    }
}
