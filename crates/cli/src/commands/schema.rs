//! `nocebo schema`.

use nocebo_audit::Audit;

use crate::failure::{Failure, OrFail};

pub(crate) fn run() -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(&Audit::schema()).or_usage()?);
    Ok(())
}
