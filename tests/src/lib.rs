//! chaski-tests
