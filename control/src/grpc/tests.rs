//! The services over a real socket.
