use anyhow::{Context as _, Result};

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// A folder for the logs and data of one run; gone when dropped, unless it is to be kept.
pub struct WorkFolder {
    path: PathBuf,
    is_kept: bool,
}

impl WorkFolder {
    /// A new folder of this process for `purpose`.
    pub fn new(purpose: &str) -> Result<Self> {
        let path = env::temp_dir().join(format!("dibs-{purpose}-{}", process::id()));
        fs::create_dir_all(&path).context("making a folder for logs")?;
        Ok(Self { path, is_kept: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it for somebody to look into.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            crate::output::note(&format!("{} is left behind: {error}", self.path.display()));
        }
    }
}
