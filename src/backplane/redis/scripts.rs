//! Lua scripts that Redis runs.

use redis::{RedisResult, Script, aio::MultiplexedConnection};

use crate::backplane::redis::entry::{FIELDS, FORMAT};

/// Scripts. Each is one atomic command, described at the beginning of its file in `lua/`.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) append: Script,
    pub(crate) open: Script,
    pub(crate) read: Script,
    pub(crate) trim: Script,
    pub(crate) keep: Script,
    pub(crate) presence: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        let shared = include_str!("lua/shared.lua");
        let script = |text: &str| Script::new(&format!("{shared}\n{text}"));
        let entries = format!("local FORMAT, FIELDS = '{FORMAT}', {{'{}'}}", FIELDS.join("', '"));
        let append = format!("{entries}\n{}", include_str!("lua/append.lua"));
        Self {
            append: script(&append),
            open: script(include_str!("lua/open.lua")),
            read: script(include_str!("lua/read.lua")),
            trim: script(include_str!("lua/trim.lua")),
            keep: script(include_str!("lua/keep.lua")),
            presence: script(include_str!("lua/presence.lua")),
        }
    }
}

impl Scripts {
    /// Loads all scripts into the server, so that the first push need not.
    ///
    /// # Errors
    /// Fails when the server rejects a script or does not answer.
    pub(crate) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let Self { append, open, read, trim, keep, presence } = self;
        for script in [append, open, read, trim, keep, presence] {
            script.load_async(connection).await?;
        }
        Ok(())
    }
}
