//! The few words of D-Bus that are needed to speak with firewalld (firewalld.dbus(5)).

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream};

/// The name, and the interface of the signal `Reloaded`.
const FIREWALLD: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
/// The bus itself.
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Why firewalld was not reached, or did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    /// No bus, or it takes too long.
    #[error("the bus does not answer")]
    Timeout,
    /// The connection ended.
    #[error("the connection to the bus ended")]
    Closed,
    /// A call failed.
    #[error("{0}")]
    Call(String),
}

/// What became of a bridge that was to be put into a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the zone.
    Trusted,
    /// Somebody else has put it into another one, and knows why.
    Elsewhere,
}

/// What firewalld or the bus tell unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// firewalld came, or went.
    Owner(bool),
    /// firewalld has read its configuration again.
    Reloaded,
}

/// A connection to the system bus.
#[derive(Debug)]
pub(super) struct Bus {
    connection: Connection,
    owners: MessageStream,
    reloads: MessageStream,
}

impl Bus {
    /// Connects and subscribes.
    pub(super) async fn connect(address: &str, call_timeout: Duration) -> Result<Self, BusError> {
        let connection = Builder::address(address)
            .method_timeout(call_timeout)
            .build()
            .await
            .map_err(|error| failed(&error))?;
        let owner_rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(BUS)
            .interface(BUS)
            .member("NameOwnerChanged")
            .add_arg(FIREWALLD);
        let reload_rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .interface(FIREWALLD)
            .member("Reloaded")
            .path(PATH);
        let subscribe = |rule: zbus::match_rule::Builder<'static>| async {
            let rule = rule.build().map_err(|error| failed(&error))?;
            let stream = MessageStream::for_match_rule(rule, &connection, None).await;
            stream.map_err(|error| failed(&error))
        };
        let owners = subscribe(owner_rule).await?;
        let reloads = subscribe(reload_rule).await?;
        Ok(Self {
            connection,
            owners,
            reloads,
        })
    }

    /// Whether firewalld runs. Asked before any call: a call could start it.
    pub(super) async fn is_firewalld_there(&self) -> Result<bool, BusError> {
        let body = (FIREWALLD,);
        let call =
            self.connection
                .call_method(Some(BUS), BUS_PATH, Some(BUS), "NameHasOwner", &body);
        read(&call.await.map_err(|error| failed(&error))?)
    }

    /// Waits for news.
    pub(super) async fn news(&mut self) -> Result<News, BusError> {
        tokio::select! {
            message = next(&mut self.owners) => {
                let message = message?;
                let body = message.body();
                let (_, _, owner): (&str, &str, &str) =
                    body.deserialize().map_err(|error| failed(&error))?;
                Ok(News::Owner(!owner.is_empty()))
            }
            message = next(&mut self.reloads) => message.map(|_| News::Reloaded),
        }
    }

    /// Puts a bridge into the zone, unless it is in another one.
    pub(super) async fn add(&self, zone: &str, bridge: &str) -> Result<Added, BusError> {
        match self.zones("addInterface", zone, bridge).await {
            Ok(()) => Ok(Added::Trusted),
            Err(BusError::Call(text)) if text.contains("ZONE_CONFLICT") => Ok(Added::Elsewhere),
            Err(BusError::Call(text))
                if ["ZONE_ALREADY_SET", "ALREADY_ENABLED"]
                    .iter()
                    .any(|code| text.contains(code)) =>
            {
                Ok(Added::Trusted)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a bridge out of the zone; one that is not in it counts as taken out.
    pub(super) async fn remove(&self, zone: &str, bridge: &str) -> Result<(), BusError> {
        match self.zones("removeInterface", zone, bridge).await {
            Err(BusError::Call(text))
                if ["UNKNOWN_INTERFACE", "NOT_ENABLED", "ZONE_CONFLICT"]
                    .iter()
                    .any(|code| text.contains(code)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn zones(&self, method: &str, zone: &str, bridge: &str) -> Result<(), BusError> {
        let body = (zone, bridge);
        let call = self
            .connection
            .call_method(Some(FIREWALLD), PATH, Some(ZONES), method, &body);
        call.await.map(|_| ()).map_err(|error| failed(&error))
    }
}

fn read(message: &Message) -> Result<bool, BusError> {
    message.body().deserialize().map_err(|error| failed(&error))
}

async fn next(stream: &mut MessageStream) -> Result<Message, BusError> {
    match poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(failed(&error)),
        None => Err(BusError::Closed),
    }
}

fn failed(error: &zbus::Error) -> BusError {
    BusError::Call(error.to_string())
}
