//! What the operator said, made impossible to misread.
#![forbid(unsafe_code)]

mod address;
mod duration;
mod error;
mod file;
pub mod limits;
mod model;
mod nearest;
mod resolve;

pub use error::{Place, Problem, Problems, Warning};
pub use model::{
    Backend, Balancer, Forward, Health, HealthKind, Interface, Mode, Model, PartialChecksums,
    Protocol, Service, WhenEmpty,
};

use error::{Findings, Kind, Refusal};

/// A file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it says.
    pub model: Model,
    /// What it says but probably does not mean, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// Reads a configuration. `file_name` is only for the places in problems and warnings; nothing is opened.
///
/// # Errors
/// Every problem of the text, at once; nothing of it may be used then.
pub fn parse(file_name: &str, text: &str) -> Result<Parsed, Problems> {
    let mut findings = Findings::new(file_name, text);
    if text.len() > limits::FILE_BYTES_MAX {
        let refusal = Refusal {
            found: format!("{} bytes", text.len()),
            expected: format!("at most {}", limits::FILE_BYTES_MAX),
            cure: "name a configuration file".to_owned(),
        };
        findings.problem(Kind::Syntax, &(0..0), String::new(), refusal);
        return Err(findings.refuse());
    }
    let root = file::parse(text, &mut findings);
    let written = file::File::read(root.get_ref(), &mut findings);
    let model = resolve::model(&written, &mut findings);
    findings.finish(model)
}
