//! Handing over to a relay: section T.

mod pace;
mod stop;
