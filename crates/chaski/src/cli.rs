//! The command line.
#![expect(clippy::print_stdout, reason = "a command line tool answers on standard output")]

mod chat;
mod cluster;
mod cursor;
mod dead_letters;
mod decode;
mod download;
mod identity;
mod listen;
mod replay;
mod send;
mod table;
mod tools;
mod up;

use crate::{
    config::Config,
    node::{Role, Roles},
};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

/// A chat platform's messaging core: Kafka-driven, event-sourced, durable.
#[derive(Parser)]
#[command(name = "chaski", version = chaski_planted::version(env!("CARGO_PKG_VERSION")), arg_required_else_help = true, after_help = EXAMPLES)]
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
  chaski send --user ana --to ben hello         send one message
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

    /// The same settings on another process's command line.
    fn as_args(&self) -> anyhow::Result<Vec<String>> {
        let mut args = Vec::new();
        if let Some(file) = &self.config {
            let file = std::path::absolute(file)?;
            args.extend(["--config".to_owned(), file.display().to_string()]);
        }
        args.extend(self.set.iter().flat_map(|pair| ["--set".to_owned(), pair.clone()]));
        Ok(args)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole system in one process, or some roles of it
    Up(up::UpArgs),
    /// Print a token, signed with the development key
    Token(tools::TokenArgs),
    /// Chat in the terminal
    Chat(chat::ChatArgs),
    /// Send messages
    Send(send::SendArgs),
    /// Print a user's events as JSON lines
    Listen(listen::ListenArgs),
    /// Download all chats, contacts and blocks of a user into files
    Download(download::DownloadArgs),
    /// Tell partition, host and position of a user
    Where(tools::WhereArgs),
    /// Print records of the log as JSON lines
    Decode(decode::DecodeArgs),
    /// Look at the records that could not be processed, and process them after all
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Look at how far the consumers have got, and let them go back
    #[command(subcommand)]
    Cursor(cursor::CursorCommand),
    /// Run all services as separate processes in the background
    Cluster(cluster::ClusterArgs),
    /// Replay a recorded conversation log through real clients and check every inbox
    Replay(replay::ReplayArgs),
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
        Command::Chat(args) => Box::pin(chat::run(&config, args)).await,
        Command::Send(args) => Box::pin(send::run(&config, args)).await,
        Command::Listen(args) => Box::pin(listen::run(&config, args)).await,
        Command::Download(args) => Box::pin(download::run(&config, args)).await,
        Command::Decode(args) => Box::pin(decode::run(&config, args)).await,
        Command::DeadLetters(command) => Box::pin(dead_letters::run(&config, command)).await,
        Command::Cursor(command) => Box::pin(cursor::run(&config, command)).await,
        Command::Cluster(args) => Box::pin(cluster::run(config, &cli.settings, args)).await,
        Command::Where(args) => tools::locate(&config, &args).await,
        Command::Replay(args) => Box::pin(replay::replay(&config, args)).await,
        Command::Migrate => tools::migrate(&config).await,
        Command::Doctor => tools::doctor(&config).await,
        Command::Config { command: ConfigCommand::Dump } => {
            print!("{}", chaski_runtime::to_toml(&config)?);
            Ok(())
        }
    }
}

/// One role as a program of its own.
#[derive(Parser)]
#[command(version)]
struct RoleCli {
    #[command(flatten)]
    settings: Settings,
    /// Development mode: make a signing key on first use and the topics as needed
    #[arg(long, env = "CHASKI_DEV")]
    dev: bool,
}

/// Runs one role to its end.
pub async fn role_main(role: Role) -> anyhow::Result<()> {
    let cli = RoleCli::parse();
    let config = cli.settings.load()?;
    Box::pin(up::serve(config, &Roles::of(&[role]), cli.dev)).await
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
