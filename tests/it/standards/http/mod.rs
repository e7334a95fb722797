//! Web pages and HTTP (H).

mod answers;
mod bodies;
mod headers;
mod limits;
mod links;
mod pages;
mod private;
mod stalled;
mod states;
