//! Message format (F).

mod classes;
mod constants;
mod html;
mod injection;
mod lines;
mod senders;
mod size;
mod words;
