//! `nocebo schema`.

use nocebo_audit::Audit;

pub(crate) fn run() {
    print!("{}", Audit::schema());
}
