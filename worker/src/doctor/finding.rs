use std::{fmt, process::ExitCode};

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Ok,
    Warning,
    Error,
}

impl Status {
    const fn into_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub status: Status,
    pub check: String,
    pub found: String,
    pub expected: String,
    /// What to do; left out when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well, [unless](Self::unless) something holds not.
    pub fn new(check: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { status: Status::Ok, check: check.into(), found: found.into(), expected: expected.into(), remedy: None }
    }

    #[must_use]
    pub fn unless(mut self, holds: bool, status: Status, remedy: impl Into<String>) -> Self {
        if !holds && self.status == Status::Ok {
            self.status = status;
            self.remedy = Some(remedy.into());
        }
        self
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    /// The worst of all findings.
    status: Status,
    findings: Vec<Finding>,
}

impl Report {
    pub fn new(findings: Vec<Finding>) -> Self {
        let status = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
        Self { status, findings }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.status {
            Status::Ok => 0,
            Status::Warning => 1,
            Status::Error => 2,
        })
    }
}

/// A line for each check; what is not well has two more: what was expected, and what to do.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
        for Finding { status, check, found, expected, remedy } in &self.findings {
            let found = found.replace('\n', " ");
            writeln!(formatter, "{:<8} {check:<width$}  {found}", status.into_str())?;
            if let Some(remedy) = remedy {
                writeln!(formatter, "{:<8} {:<width$}    expected: {expected}", "", "")?;
                writeln!(formatter, "{:<8} {:<width$}    do: {remedy}", "", "")?;
            }
        }
        let count = |status| self.findings.iter().filter(|finding| finding.status == status).count();
        let (errors, warnings) = (count(Status::Error), count(Status::Warning));
        write!(formatter, "{} checks, {warnings} warnings, {errors} errors", self.findings.len())
    }
}
