//! Addresses and internationalisation (I).
