//! `nocebo phantom`.

use nocebo_core::Seed;
use nocebo_data::DataError;
use nocebo_data::phantoms::{MODALITIES, Phantom};

use crate::arguments::{self, Global};
use crate::failure::{Failure, OrFail};

pub(crate) fn run(arguments: &arguments::Phantom, global: &Global) -> Result<(), Failure> {
    let (Some(name), Some(out)) = (&arguments.modality, &arguments.out) else {
        for modality in MODALITIES {
            println!("{:12} {} ({})", modality.name, modality.about, modality.classes.join(", "));
        }
        return Ok(());
    };
    let phantom = Phantom::new(name, arguments.size, arguments.difficulty).or_usage()?;
    match phantom.write(out, Seed(global.seed), arguments.count) {
        Err(error @ DataError::Write { .. }) => return Err(error).or_incomplete(),
        other => other.or_usage()?,
    }
    println!("wrote {} {name} phantoms of shape {:?} to {}", arguments.count, phantom.domain().shape(), out.display());
    Ok(())
}
