//! One-click unsubscribe (U).
