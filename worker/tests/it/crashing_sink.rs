use dibs_common::{
    db::Lease,
    error::{Error, Result},
};
use dibs_worker::relay::{Batch, Sink};

/// Delivers to its sink, and fails before the relay records the progress.
pub struct CrashingSink<S>(pub S);

impl<S: Sink> Sink for CrashingSink<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn kinds(&self) -> &'static [&'static str] {
        self.0.kinds()
    }

    async fn deliver(&mut self, batch: &Batch, lease: &mut Lease) -> Result<u64> {
        self.0.deliver(batch, lease).await?;
        Err(Error::internal("the process crashed"))
    }
}
