//! A notice from its publication to the day on which it takes effect: for many people, and where something comes between.

mod alarm;
mod forecast;
mod journey;
mod late;
mod order;
mod unreached;
