//! chaski-testkit
