//! Web pages and HTTP (H).

mod bodies;
mod headers;
mod limits;
mod links;
mod pages;
mod private;
mod stalled;
mod states;
