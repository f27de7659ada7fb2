//! The command line.
#![expect(clippy::print_stdout, reason = "a command line tool answers on standard output")]

mod tools;
mod up;

use crate::config::Config;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

/// A chat platform's messaging core: Kafka-driven, event-sourced, durable.
#[derive(Parser)]
#[command(name = "chaski", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Configuration: flag > environment CHASKI_* > TOML file > default; `chaski config dump` shows all keys.

Examples:
  chaski up --dev                               everything in one process, data in ./data
  export CHASKI_DEV_KEY=./data/dev-key.pem
  chaski token --user ana --device phone        a token for HTTP and WebSocket
  chaski chat --user ana --to ben               chat in the terminal
  chaski listen --user ben                      print ben's events as JSON lines
  chaski where --user ana                       partition, host and position of a user";

/// Where the configuration comes from, and overrides for any key.
#[derive(Args)]
struct Settings {
    /// Configuration file (TOML)
    #[arg(long, env = "CHASKI_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Override one key, such as `-s delivery.ring_bytes=1048576`; may be repeated
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

impl Settings {
    fn load(&self) -> anyhow::Result<Config> {
        let pairs = self.set.iter().map(|pair| {
            let (key, value) = pair.split_once('=').context("-s takes KEY=VALUE")?;
            Ok((key, value.to_owned()))
        });
        let flags = pairs.collect::<anyhow::Result<Vec<_>>>()?;
        Config::load(self.config.as_deref(), &flags)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole system in one process, or some roles of it
    Up(up::UpArgs),
    /// Print a token, signed with the development key
    Token(tools::TokenArgs),
    /// Tell partition, host and position of a user
    Where(tools::WhereArgs),
    /// Create or update topics and tables on the configured backends
    Migrate,
    /// Check the configuration and the backends
    Doctor,
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the configuration in force, as TOML
    Dump,
}

/// Runs the command line to its end.
pub async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let config = cli.settings.load()?;
    match cli.command {
        Command::Up(args) => Box::pin(up::run(config, args)).await,
        Command::Token(args) => tools::token(&config, &args),
        Command::Where(args) => tools::locate(&config, &args).await,
        Command::Migrate => tools::migrate(&config).await,
        Command::Doctor => tools::doctor(&config).await,
        Command::Config { command: ConfigCommand::Dump } => {
            print!("{}", chaski_runtime::to_toml(&config)?);
            Ok(())
        }
    }
}

/// `90s`, `15m`, `24h`, `7d`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => return Err(format!("{other} is no unit of time; s, m, h and d are")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text} is no duration, such as 24h"))?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| format!("{text} is too long"))
}
