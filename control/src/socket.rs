//! The daemon's unix socket: for its own user only, of one daemon only, and replaced when its owner was killed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon has it.
    #[error("another pointsmand{} serves {} already; stop it (`kill {}`), or give this one its own with --socket PATH", owner(.pid), .path.display(), .pid.as_deref().unwrap_or("PID"))]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who has it, if it has said so.
        pid: Option<String>,
    },
    /// It cannot be made.
    #[error("cannot {step} {}: {source}; be root, or choose another place with --socket PATH", .path.display())]
    Make {
        /// What was to be done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn owner(pid: &Option<String>) -> String {
    pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// A socket that listens. It is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Held for as long as the socket is ours; the kernel lets go of it however we end.
    _lock: File,
}

impl Socket {
    /// Makes the socket and the folder that it is in.
    ///
    /// # Errors
    /// When another daemon serves it, or it cannot be made.
    pub fn listen(path: &Path) -> Result<(Self, UnixListener), Error> {
        let make = |step, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Make { step, path, source }
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(make("make the folder", folder))?;
        let lock = lock(path)?;
        // Made where nobody else may look, so that there is no moment in which others could connect.
        let hidden = folder.join(format!(".{}", std::process::id()));
        let _ = fs::remove_dir_all(&hidden);
        DirBuilder::new().mode(0o700).create(&hidden).map_err(make("make the folder", &hidden))?;
        let listener = listen_in(&hidden, path);
        let _ = fs::remove_dir_all(&hidden);
        let listener = listener.map_err(make("listen on", path))?;
        Ok((Self { path: path.to_owned(), _lock: lock }, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

fn listen_in(hidden: &Path, path: &Path) -> io::Result<UnixListener> {
    let new = hidden.join("s");
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    // Takes the place of what a killed daemon has left.
    fs::rename(&new, path)?;
    Ok(listener)
}

fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |source| Error::Make { step: "lock", path: name.clone(), source };
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Its text only makes the message better.
            let _ = file.read_to_string(&mut pid);
            let pid = Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(Error::Taken { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pointsman-socket-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn a_second_daemon_is_refused_with_the_first_ones_process() {
        let folder = folder("second");
        let path = folder.join("run/p.sock");
        let first = Socket::listen(&path).unwrap();
        let error = Socket::listen(&path).unwrap_err().to_string();
        let pid = std::process::id();
        let start = format!(
            "another pointsmand (process {pid}) serves {} already; stop it (`kill {pid}`)",
            path.display()
        );
        assert!(error.starts_with(&start) && error.ends_with("--socket PATH"), "{error}");
        drop(first);
        assert!(!path.exists());
        drop(Socket::listen(&path).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_its_own_user_may_use_the_socket_and_a_stale_one_is_replaced() {
        let folder = folder("mode");
        let path = folder.join("p.sock");
        fs::create_dir_all(&folder).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let (_socket, _listener) = Socket::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "the socket and its lock");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = Socket::listen(Path::new("/proc/nosuch/p.sock")).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the folder /proc/nosuch: "), "{error}");
    }
}
