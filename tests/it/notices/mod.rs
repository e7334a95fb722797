//! Notices: who is told of a change, how often, by when, and what an administrator changes about it on the way.

mod clock;
mod journey;
mod rounds;
mod told;
