//! `ipvsadm`, `ipvsadm-save` and `ipvsadm-restore`: a command line in, calls to the director, the original's text
//! and exit status out. What the words mean is `compat::ipvsadm`'s.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use pointsman_proto::v1::{
    AddServerRequest, AddServiceRequest, BatchRequest, DeleteServerRequest, DeleteServiceRequest,
    EditServerRequest, EditServiceRequest, FlushRequest, GetTimeoutsRequest, ListConnectionsRequest,
    ListRequest, SetTimeoutsRequest, Verb, ZeroRequest, verb::Verb as Kind,
};
use tonic::Code::{ResourceExhausted, Unimplemented};

use super::EXIT_PIPE_CLOSED;
use super::client::{Director, Unreachable};
use crate::compat::ipvsadm::{
    self as text, Command, EXIT_LIST, EXIT_REFUSED, EXIT_USAGE, Format, Listing, Names, UsageError,
    refusal_sentence, refusal_text,
};

/// Changes in one call of a restore.
const BATCH: usize = 1_000;

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
        self.restore_lines(vec![Kind::Flush(FlushRequest {})], |line| !line.starts_with('#')).await
    }

    async fn restore(&mut self) -> Result<(), End> {
        self.restore_lines(Vec::new(), |_| true).await
    }

    /// A refusal of the director is told and the next line read; a mistake of usage ends it, with the lines before it in
    /// force. The status is that of the last line. `waiting`: what comes before the first line.
    ///
    /// Changes go to the director many at a time: each call costs what it takes until every worker runs a change.
    async fn restore_lines(
        &mut self,
        mut waiting: Vec<Kind>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), End> {
        let mut status = 0;
        loop {
            let command = match self.next_command(&wanted) {
                Ok(Some(command)) => command,
                last => {
                    status = self.send(&mut waiting).await?.unwrap_or(status);
                    last?;
                    break;
                }
            };
            match verb(command) {
                Ok(verb) => {
                    waiting.push(verb);
                    if waiting.len() >= BATCH {
                        status = self.send(&mut waiting).await?.unwrap_or(status);
                    }
                }
                Err(other) => {
                    self.send(&mut waiting).await?;
                    let done = self.execute(*other).await;
                    status = self.told(done)?;
                }
            }
        }
        if status == 0 { Ok(()) } else { Err(End::Said(String::new(), status)) }
    }

    /// The next line of the input that says something.
    fn next_command(&mut self, wanted: &impl Fn(&str) -> bool) -> Result<Option<Command>, End> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if self.streams.input.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&bytes);
            let Some(args) = text::arguments(&line).filter(|_| wanted(&line)) else {
                continue;
            };
            return match text::parse(&args, self.names)? {
                Command::Restore => Err(UsageError::nested_restore().into()),
                command => Ok(Some(command)),
            };
        }
    }

    /// Sends the changes that wait, and tells each refusal. Returns the status of the last one, if there was one.
    async fn send(&mut self, waiting: &mut Vec<Kind>) -> Result<Option<u8>, End> {
        let verbs = std::mem::take(waiting);
        if verbs.is_empty() {
            return Ok(None);
        }
        let director = self.director().await?;
        let request =
            BatchRequest { verbs: verbs.iter().map(|verb| Verb { verb: Some(verb.clone()) }).collect() };
        let mut status = 0;
        match director.lvs().batch(request).await {
            Ok(answer) => {
                for result in answer.into_inner().results {
                    let done = match result.refusal {
                        Some(refusal) => Err(End::Said(refusal_sentence(&refusal), EXIT_REFUSED)),
                        None => Ok(()),
                    };
                    status = self.told(done)?;
                }
            }
            // There is no room for all, or the director is older than this call: as far as it goes, one by one.
            Err(refused) if matches!(refused.code(), ResourceExhausted | Unimplemented) => {
                for verb in verbs {
                    let done = self.change(verb).await;
                    status = self.told(done)?;
                }
            }
            Err(refused) => status = self.told(Err(refused.into()))?,
        }
        Ok(Some(status))
    }

    /// Tells why a line failed at the director, which does not end a restore. Returns its status.
    fn told(&mut self, done: Result<(), End>) -> Result<u8, End> {
        match done {
            Ok(()) => Ok(0),
            Err(End::Said(message, exit)) if self.director.is_some() => {
                let _ = writeln!(self.streams.err, "{message}");
                Ok(exit)
            }
            Err(end) => Err(end),
        }
    }

    async fn execute(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Help => Ok(self.streams.out.write_all(text::HELP.as_bytes())?),
            Command::Version => Ok(self.streams.out.write_all(text::VERSION.as_bytes())?),
            Command::List(listing, format) => self.list(listing, format).await,
            Command::Save(format) => {
                let answer = self.director().await?.lvs().list(ListRequest::default()).await?.into_inner();
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
            Command::Zero(service) => {
                self.director().await?.lvs().zero(ZeroRequest { service }).await?;
                Ok(())
            }
            change => match verb(change) {
                Ok(verb) => self.change(verb).await,
                // All others are above.
                Err(_) => Ok(()),
            },
        }
    }

    /// The warnings of a change are not printed: the original prints nothing. `pointsman show` has them.
    async fn change(&mut self, verb: Kind) -> Result<(), End> {
        let mut lvs = self.director().await?.lvs();
        match verb {
            Kind::AddService(request) => lvs.add_service(request).await,
            Kind::EditService(request) => lvs.edit_service(request).await,
            Kind::DeleteService(request) => lvs.delete_service(request).await,
            Kind::Flush(request) => lvs.flush(request).await,
            Kind::AddServer(request) => lvs.add_server(request).await,
            Kind::EditServer(request) => lvs.edit_server(request).await,
            Kind::DeleteServer(request) => lvs.delete_server(request).await,
            Kind::SetTimeouts(request) => lvs.set_timeouts(request).await,
            Kind::AddVirtualAddress(request) => lvs.add_virtual_address(request).await,
            Kind::DeleteVirtualAddress(request) => lvs.delete_virtual_address(request).await,
            Kind::AddMark(request) => lvs.add_mark(request).await,
            Kind::DeleteMark(request) => lvs.delete_mark(request).await,
            Kind::AddSourceNat(request) => lvs.add_source_nat(request).await,
            Kind::DeleteSourceNat(request) => lvs.delete_source_nat(request).await,
            Kind::SetPolicies(request) => lvs.set_policies(request).await,
        }?;
        Ok(())
    }

    async fn list(&mut self, listing: Listing, format: Format) -> Result<(), End> {
        let director = self.director().await?;
        let printed = match listing {
            Listing::Connections => return self.connections(&director, format).await,
            Listing::Services => {
                let answer = director.lvs().list(ListRequest::default()).await?.into_inner();
                text::services_text(&answer.services, true, format, self.names)
            }
            Listing::Service(key) => {
                let listed = director.lvs().list(ListRequest { service: Some(key), warnings: false }).await;
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
            // Those of source NAT are no connections of a service: the original keeps them elsewhere.
            for connection in batch.connections.iter().filter(|connection| !connection.outbound) {
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

/// The call that a command is, if it changes the configuration; else the command.
fn verb(command: Command) -> Result<Kind, Box<Command>> {
    Ok(match command {
        Command::AddService(service) => Kind::AddService(AddServiceRequest { service: Some(service) }),
        Command::EditService(service) => Kind::EditService(EditServiceRequest { service: Some(service) }),
        Command::DeleteService(key) => Kind::DeleteService(DeleteServiceRequest { service: Some(key) }),
        Command::Clear => Kind::Flush(FlushRequest {}),
        Command::AddServer(key, server) => {
            Kind::AddServer(AddServerRequest { service: Some(key), server: Some(server) })
        }
        Command::EditServer(key, server) => {
            Kind::EditServer(EditServerRequest { service: Some(key), server: Some(server) })
        }
        Command::DeleteServer(key, address, port) => {
            Kind::DeleteServer(DeleteServerRequest { service: Some(key), address, port: port.into() })
        }
        Command::SetTimeouts(timeouts) => Kind::SetTimeouts(SetTimeoutsRequest { timeouts: Some(timeouts) }),
        other => return Err(Box::new(other)),
    })
}
