//! Configuration in layers: flag > environment `CHASKI_*` > TOML file > default. Unknown keys are
//! errors. The keys of the environment follow from the defaults: `delivery.ring_bytes` is
//! `CHASKI_DELIVERY_RING_BYTES`.

use config::{Config, File, FileFormat};
use serde::{Serialize, de::DeserializeOwned};
use std::{env, path::Path};

/// A configuration that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file, key or value is wrong.
    #[error("configuration: {0}")]
    Wrong(#[from] config::ConfigError),
    /// The defaults cannot be written down.
    #[error("configuration: {0}")]
    Defaults(#[from] toml::ser::Error),
}

/// Loads a configuration: defaults, then `file`, then the environment, then `flags` (key, value).
pub fn load<T>(file: Option<&Path>, flags: &[(&str, String)]) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let defaults = toml::Value::try_from(T::default())?;
    let mut builder = Config::builder()
        .add_source(File::from_str(&toml::to_string(&defaults)?, FileFormat::Toml));
    if let Some(file) = file {
        builder = builder.add_source(File::from(file).format(FileFormat::Toml));
    }
    let mut keys = Vec::new();
    leaves(&defaults, String::new(), &mut keys);
    for (key, is_list) in keys {
        if let Ok(value) = env::var(format!("CHASKI_{}", key.replace('.', "_").to_uppercase())) {
            builder = if is_list {
                let items: Vec<&str> = value.split(',').filter(|s| !s.is_empty()).collect();
                builder.set_override(key, items)?
            } else {
                builder.set_override(key, value)?
            };
        }
    }
    for (key, value) in flags {
        builder = builder.set_override(*key, value.as_str())?;
    }
    Ok(builder.build()?.try_deserialize()?)
}

/// The configuration as TOML, for `config dump`.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    Ok(toml::to_string(config)?)
}

fn leaves(value: &toml::Value, path: String, keys: &mut Vec<(String, bool)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, path, keys);
            }
        }
        other => keys.push((path, other.is_array())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        listen: String,
        keys: Vec<String>,
        inner: Inner,
    }
    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        ring_bytes: u64,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_flag_wins_over_the_file_which_wins_over_the_default() {
        let file = file("listen = \"file\"\n[inner]\nring_bytes = 7\n");
        let config: Outer = load(Some(file.path()), &[("listen", "flag".into())]).unwrap();
        let inner = Inner { ring_bytes: 7 };
        assert_eq!(config, Outer { listen: "flag".into(), keys: vec![], inner });
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let file = file("[inner]\nring_byte = 7\n");
        let error = load::<Outer>(Some(file.path()), &[]).unwrap_err().to_string();
        assert!(error.contains("ring_byte"), "{error}");
    }
}
