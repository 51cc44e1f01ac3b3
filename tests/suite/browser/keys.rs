//! Keys by pages.
