//! `ipvsadm`, `ipvsadm-save` and `ipvsadm-restore`: a command line in, calls to the director, the original's text
//! and exit status out. What the words mean is `compat::ipvsadm`'s.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use pointsman_proto::v1::{
    AddServerRequest, AddServiceRequest, DeleteServerRequest, DeleteServiceRequest, EditServerRequest,
    EditServiceRequest, FlushRequest, GetTimeoutsRequest, ListConnectionsRequest, ListRequest,
    SetTimeoutsRequest, ZeroRequest,
};

use super::EXIT_PIPE_CLOSED;
use super::client::{Director, Unreachable};
use crate::compat::ipvsadm::{
    self as text, Command, EXIT_LIST, EXIT_REFUSED, EXIT_USAGE, Format, Listing, Names, UsageError,
    refusal_text,
};

/// Where the program reads and writes.
pub struct Streams<'a> {
    /// What `-R` reads.
    pub input: &'a mut dyn BufRead,
    /// Lists.
    pub out: &'a mut dyn Write,
    /// Everything that went wrong.
    pub err: &'a mut dyn Write,
}

/// The names that the program is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `ipvsadm`
    Ipvsadm,
    /// `ipvsadm-save`
    Save,
    /// `ipvsadm-restore`
    Restore,
}

/// Does what a command line says. Returns the exit status.
pub async fn run<'a>(
    program: Program,
    args: &[String],
    socket: &Path,
    names: &'a dyn Names,
    streams: Streams<'a>,
) -> u8 {
    let mut session = Session { socket: socket.to_owned(), director: None, names, streams };
    let done = match program {
        Program::Ipvsadm => session.line(args).await,
        Program::Save => session.save(args).await,
        Program::Restore => session.replace(args).await,
    };
    let flushed = session.streams.out.flush();
    match done.and_then(|()| Ok(flushed?)) {
        Ok(()) => 0,
        Err(end) => session.tell(&end),
    }
}

/// Why a command ended early.
enum End {
    /// A message for stderr, and the exit status.
    Said(String, u8),
    /// The reader of the output is gone.
    PipeClosed,
    /// A mistake that ends a whole restore.
    Usage(UsageError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Said(format!("ipvsadm: {error}"), EXIT_REFUSED),
        }
    }
}

impl From<tonic::Status> for End {
    fn from(status: tonic::Status) -> Self {
        Self::Said(refusal_text(&status), EXIT_REFUSED)
    }
}

impl From<Unreachable> for End {
    fn from(error: Unreachable) -> Self {
        Self::Said(format!("Can't initialize ipvs: {error}\n{}", error.remedy()), EXIT_USAGE)
    }
}

impl From<UsageError> for End {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

struct Session<'a> {
    socket: PathBuf,
    /// Connected at the first call: help and usage errors need none.
    director: Option<Director>,
    names: &'a dyn Names,
    streams: Streams<'a>,
}

impl Session<'_> {
    async fn line(&mut self, args: &[String]) -> Result<(), End> {
        match text::parse(args, self.names)? {
            Command::Restore => self.restore().await,
            command => self.execute(command).await,
        }
    }

    /// `ipvsadm-save [-n]`
    async fn save(&mut self, args: &[String]) -> Result<(), End> {
        let numeric = match args {
            [] => false,
            [only] if only == "-n" || only == "--numeric" => true,
            _ => {
                let message = "ipvsadm-save takes only -n (numbers instead of names)".to_owned();
                return Err(End::Said(message, 1));
            }
        };
        self.execute(Command::Save(Format { numeric, ..Format::default() })).await
    }

    /// `ipvsadm-restore`
    async fn replace(&mut self, args: &[String]) -> Result<(), End> {
        if !args.is_empty() {
            let message = "ipvsadm-restore takes no arguments; it reads rules from stdin".to_owned();
            return Err(End::Said(message, 1));
        }
        self.execute(Command::Clear).await?;
        self.restore_lines(|line| !line.starts_with('#')).await
    }

    async fn restore(&mut self) -> Result<(), End> {
        self.restore_lines(|_| true).await
    }

    /// A refusal of the director is told and the next line read; a mistake of usage ends it. The status is that of
    /// the last line.
    async fn restore_lines(&mut self, wanted: impl Fn(&str) -> bool) -> Result<(), End> {
        let mut status = 0;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if self.streams.input.read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            let line = String::from_utf8_lossy(&bytes);
            let Some(args) = text::arguments(&line).filter(|_| wanted(&line)) else {
                continue;
            };
            let command = match text::parse(&args, self.names)? {
                Command::Restore => return Err(UsageError::nested_restore().into()),
                command => command,
            };
            status = match self.execute(command).await {
                Ok(()) => 0,
                Err(End::Said(message, exit)) if self.director.is_some() => {
                    let _ = writeln!(self.streams.err, "{message}");
                    exit
                }
                Err(end) => return Err(end),
            };
        }
        if status == 0 { Ok(()) } else { Err(End::Said(String::new(), status)) }
    }

    async fn execute(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Help => Ok(self.streams.out.write_all(text::HELP.as_bytes())?),
            Command::Version => Ok(self.streams.out.write_all(text::VERSION.as_bytes())?),
            Command::List(listing, format) => self.list(listing, format).await,
            Command::Save(format) => {
                let answer =
                    self.director().await?.lvs().list(ListRequest { service: None }).await?.into_inner();
                let rules = text::rules_text(&answer.services, format, false, self.names);
                Ok(self.streams.out.write_all(rules.as_bytes())?)
            }
            Command::StartDaemon => Err(End::Said(
                "Operation not supported\nPointsman has no synchronisation daemon of the original's kind: \
                 remove --start-daemon from the start scripts"
                    .to_owned(),
                EXIT_REFUSED,
            )),
            Command::StopDaemon => Err(End::Said("No daemon is running".to_owned(), EXIT_REFUSED)),
            Command::Restore => Err(UsageError::nested_restore().into()),
            change => self.change(change).await,
        }
    }

    /// The warnings of a change are not printed: the original prints nothing. `pointsman show` has them.
    async fn change(&mut self, command: Command) -> Result<(), End> {
        let mut lvs = self.director().await?.lvs();
        match command {
            Command::AddService(service) => {
                lvs.add_service(AddServiceRequest { service: Some(service) }).await?;
            }
            Command::EditService(service) => {
                lvs.edit_service(EditServiceRequest { service: Some(service) }).await?;
            }
            Command::DeleteService(key) => {
                lvs.delete_service(DeleteServiceRequest { service: Some(key) }).await?;
            }
            Command::Clear => {
                lvs.flush(FlushRequest {}).await?;
            }
            Command::AddServer(key, server) => {
                lvs.add_server(AddServerRequest { service: Some(key), server: Some(server) }).await?;
            }
            Command::EditServer(key, server) => {
                lvs.edit_server(EditServerRequest { service: Some(key), server: Some(server) }).await?;
            }
            Command::DeleteServer(key, address, port) => {
                let request = DeleteServerRequest { service: Some(key), address, port: port.into() };
                lvs.delete_server(request).await?;
            }
            Command::Zero(service) => {
                lvs.zero(ZeroRequest { service }).await?;
            }
            Command::SetTimeouts(timeouts) => {
                lvs.set_timeouts(SetTimeoutsRequest { timeouts: Some(timeouts) }).await?;
            }
            Command::Help
            | Command::Version
            | Command::List(..)
            | Command::Save(_)
            | Command::StartDaemon
            | Command::StopDaemon
            | Command::Restore => {}
        }
        Ok(())
    }

    async fn list(&mut self, listing: Listing, format: Format) -> Result<(), End> {
        let director = self.director().await?;
        let printed = match listing {
            Listing::Connections => return self.connections(&director, format).await,
            Listing::Services => {
                let answer = director.lvs().list(ListRequest { service: None }).await?.into_inner();
                text::services_text(&answer.services, true, format, self.names)
            }
            Listing::Service(key) => {
                let listed = director.lvs().list(ListRequest { service: Some(key) }).await;
                let answer =
                    listed.map_err(|status| End::Said(refusal_text(&status), EXIT_LIST))?.into_inner();
                text::services_text(&answer.services, false, format, self.names)
            }
            Listing::Timeouts => {
                text::timeouts_text(&director.lvs().get_timeouts(GetTimeoutsRequest {}).await?.into_inner())
            }
            Listing::Daemon => String::new(),
        };
        Ok(self.streams.out.write_all(printed.as_bytes())?)
    }

    async fn connections(&mut self, director: &Director, format: Format) -> Result<(), End> {
        let mut stream = director.connections().list(ListConnectionsRequest::default()).await?.into_inner();
        self.streams.out.write_all(text::connections_title(format).as_bytes())?;
        while let Some(batch) = stream.message().await? {
            for connection in &batch.connections {
                let line = text::connection_line(connection, format, self.names);
                self.streams.out.write_all(line.as_bytes())?;
            }
        }
        Ok(())
    }

    async fn director(&mut self) -> Result<Director, Unreachable> {
        if let Some(director) = &self.director {
            return Ok(director.clone());
        }
        let director = Director::connect(&self.socket).await?;
        self.director = Some(director.clone());
        Ok(director)
    }

    /// Says why it ended; the exit status for it.
    fn tell(&mut self, end: &End) -> u8 {
        // Nothing can be done about a stderr that cannot be written.
        match end {
            End::Said(message, exit) => {
                if !message.is_empty() {
                    let _ = writeln!(self.streams.err, "{message}");
                }
                *exit
            }
            End::Usage(error) => {
                let _ = writeln!(self.streams.err, "{error}");
                error.exit
            }
            End::PipeClosed => EXIT_PIPE_CLOSED,
        }
    }
}
