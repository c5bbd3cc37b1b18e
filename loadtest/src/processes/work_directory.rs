use anyhow::{Context as _, Result};

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// The folder of the logs and data of one run. Dropping it deletes the folder, unless it is kept.
pub struct WorkDirectory {
    path: PathBuf,
    is_kept: bool,
}

impl WorkDirectory {
    /// Creates the folder of this process for `purpose`.
    pub fn new(purpose: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("dibs-{purpose}-{}", process::id()));
        fs::create_dir_all(&path).context("creating the work directory")?;
        Ok(Self { path, is_kept: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder for an investigation.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            crate::output::note(&format!("deleting {}: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> WorkDirectory {
        WorkDirectory::new(&format!("test-{}", dibs_common::identifiers::new_uuid())).expect("a folder")
    }

    #[test]
    fn a_dropped_directory_is_deleted_with_its_files() {
        let directory = new();
        let path = directory.path().to_owned();
        fs::write(path.join("x.log"), "x").expect("written");
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_directory_stays() {
        let mut directory = new();
        directory.keep();
        let path = directory.path().to_owned();
        drop(directory);
        assert!(path.exists());
        fs::remove_dir_all(path).expect("deleted");
    }
}
