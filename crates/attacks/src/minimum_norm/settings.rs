//! Checks that the settings of several attacks share.

use nocebo_core::Error;

/// At least 1.
pub(crate) fn at_least_one(field: &'static str, value: usize) -> Result<(), Error> {
    if value == 0 { Err(Error::invalid(field, "at least 1", value)) } else { Ok(()) }
}

/// Finite and above 0.
pub(crate) fn positive(field: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(Error::invalid(field, "finite and above 0", value)) }
}

/// Finite and at least 0.
pub(crate) fn not_negative(field: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(Error::invalid(field, "finite and at least 0", value)) }
}

/// Finite and above 1.
pub(crate) fn growth(field: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value > 1.0 { Ok(()) } else { Err(Error::invalid(field, "finite and above 1", value)) }
}

/// Above 0 and below 1.
pub(crate) fn fraction(field: &'static str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(Error::invalid(field, "above 0 and below 1", value)) }
}
