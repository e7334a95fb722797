//! Section 9 of what is asked: notices of a policy's change. Who is told, by when, what they are told, what an administrator
//! changes on the way, and what proves it.

mod answered;
mod bounced;
mod clock;
mod corrected;
mod dates;
mod proof;
mod reached;
mod rounds;
mod told;
