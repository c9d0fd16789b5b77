//! Seeded, physically motivated phantoms with a finding, one module a modality.
