//! Settings about who may call.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::parse_duration;
use crate::access::jwt::{JwksUrl, JwtSettings, KeysFrom};

/// The most that the clocks of an issuer and of this server may differ.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Something that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Settings about who may call.
#[derive(Args, Clone, Debug)]
pub struct AccessArgs {
    /// Whether callers are asked who they are. Off is taken where only this machine can reach the server.
    #[arg(long = "auth", env = "HOLDFAST_AUTH", value_enum, default_value = "on")]
    pub auth: Switch,

    /// Whether reflection is served, which tells anybody which RPCs there are.
    #[arg(long, env = "HOLDFAST_REFLECTION", value_enum, default_value = "on")]
    pub reflection: Switch,

    /// Serve gRPC or the admin address where other machines may reach it, although calls are not encrypted or callers are
    /// not asked who they are. Every start warns of it.
    #[arg(long, env = "HOLDFAST_INSECURE_LISTEN", value_parser = clap::builder::BoolishValueParser::new())]
    pub insecure_listen: bool,

    /// What client certificates and JWTs are granted: a file of [[grant]] principal, role, pools. Read again when it
    /// changes.
    #[arg(long, env = "HOLDFAST_ACCESS_FILE")]
    pub access_file: Option<PathBuf>,

    /// The issuer of JWTs that are taken. Needs an audience, and the issuer's keys.
    #[arg(long, env = "HOLDFAST_JWT_ISSUER", requires = "jwt_audience")]
    pub jwt_issuer: Option<String>,

    /// Whom JWTs must be for.
    #[arg(long, env = "HOLDFAST_JWT_AUDIENCE", requires = "jwt_issuer")]
    pub jwt_audience: Option<String>,

    /// A file with the issuer's keys: a JWKS. Read again when it changes.
    #[arg(long, env = "HOLDFAST_JWT_JWKS_FILE", requires = "jwt_issuer")]
    pub jwt_jwks_file: Option<PathBuf>,

    /// A URL with the issuer's keys: https, or http on this machine.
    #[arg(long, env = "HOLDFAST_JWT_JWKS_URL", requires = "jwt_issuer", conflicts_with = "jwt_jwks_file",
          value_parser = JwksUrl::parse)]
    pub jwt_jwks_url: Option<JwksUrl>,

    /// How far the issuer's clock and this machine's may be from each other, 5m at the most.
    #[arg(long, env = "HOLDFAST_JWT_CLOCK_SKEW", default_value = "60s", value_parser = parse_duration)]
    pub jwt_clock_skew: Duration,
}

impl AccessArgs {
    /// Nobody is asked who they are.
    pub fn off() -> Self {
        Self { auth: Switch::Off, ..Self::on() }
    }

    /// Everybody is asked for a token.
    pub fn on() -> Self {
        Self {
            auth: Switch::On,
            reflection: Switch::On,
            insecure_listen: false,
            access_file: None,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_jwks_file: None,
            jwt_jwks_url: None,
            jwt_clock_skew: Duration::from_secs(60),
        }
    }

    /// Whether callers are asked who they are.
    pub fn is_on(&self) -> bool {
        self.auth == Switch::On
    }

    /// What JWTs must say, where they are taken.
    pub fn jwt(&self) -> Option<JwtSettings> {
        let keys = match (&self.jwt_jwks_file, &self.jwt_jwks_url) {
            (Some(file), _) => KeysFrom::File(file.clone()),
            (None, Some(url)) => KeysFrom::Url(url.clone()),
            (None, None) => return None,
        };
        Some(JwtSettings {
            issuer: self.jwt_issuer.clone()?,
            audience: self.jwt_audience.clone()?,
            clock_skew: self.jwt_clock_skew,
            keys,
        })
    }

    /// What contradicts itself.
    pub(super) fn contradictions(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.jwt_clock_skew > MAX_CLOCK_SKEW {
            wrong.push("HOLDFAST_JWT_CLOCK_SKEW must be at most 5m".to_owned());
        }
        if self.jwt_issuer.is_some() && self.jwt_jwks_file.is_none() && self.jwt_jwks_url.is_none()
        {
            wrong.push(
                "HOLDFAST_JWT_ISSUER needs the issuer's keys: set HOLDFAST_JWT_JWKS_FILE or HOLDFAST_JWT_JWKS_URL"
                    .to_owned(),
            );
        }
        let texts = [
            ("HOLDFAST_JWT_ISSUER", &self.jwt_issuer),
            ("HOLDFAST_JWT_AUDIENCE", &self.jwt_audience),
        ];
        for (name, text) in texts {
            if text.as_ref().is_some_and(String::is_empty) {
                wrong.push(format!("{name} must not be empty"));
            }
        }
        wrong
    }
}
