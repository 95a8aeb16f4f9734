//! Limits of tokens, and of the keys that they are checked by.

use super::limits;

/// How many bytes the file with the issuers may have, and each file that it names.
pub const AUTH_FILE_BYTES_AT_MOST: u64 = 256 << 10;
/// How many issuers it may have.
pub const ISSUERS_AT_MOST: usize = 64;

/// How many bytes the keys of an issuer may have.
pub const JWKS_BYTES_AT_MOST: usize = 256 << 10;
/// How many keys it may have.
pub const JWKS_KEYS_AT_MOST: usize = 64;
/// How long fetching them may take, in seconds.
pub const JWKS_FETCH_SECONDS: u64 = 5;

/// How many calls may wait for keys that are being fetched.
pub const CALLS_FOR_JWKS_AT_MOST: usize = 64;

/// How many tokens are kept in memory once they were checked.
pub const CACHED_TOKENS_AT_MOST: usize = 10_000;

/// How many realms are kept in memory for callers with tokens.
pub const CACHED_REALMS_AT_MOST: usize = 10_000;

limits! {
    TOKEN_BYTES "token_bytes" {
        bounds: "Bytes of a token, before anything of it is decoded",
        value: Setting("max-token-bytes"),
        past: "`invalid_credentials` (401)",
    }
    AUTH_FILE_BYTES "auth_file_bytes" {
        bounds: "Bytes of the file of `--auth-file`, and of each file that it names",
        value: Fixed(AUTH_FILE_BYTES_AT_MOST, "bytes"),
        past: "The service does not start; while it runs, what it has read before stays",
    }
    ISSUERS "issuers" {
        bounds: "Issuers in the file of `--auth-file`",
        value: Fixed(ISSUERS_AT_MOST as u64, "issuers"),
        past: "As for its bytes",
    }
    JWKS_BYTES "jwks_bytes" {
        bounds: "Bytes of the keys of an issuer, as they are fetched",
        value: Fixed(JWKS_BYTES_AT_MOST as u64, "bytes"),
        past: "The fetch fails; the keys that were fetched before are used for as long as `jwks_outage` says",
    }
    JWKS_KEYS "jwks_keys" {
        bounds: "Keys of an issuer",
        value: Fixed(JWKS_KEYS_AT_MOST as u64, "keys"),
        past: "As for their bytes",
    }
    JWKS_TIME "jwks_time" {
        bounds: "Time of a fetch of the keys of an issuer",
        value: Fixed(JWKS_FETCH_SECONDS, "seconds"),
        past: "As for their bytes",
    }
    JWKS_REFETCH "jwks_refetch" {
        bounds: "Time between the start of a fetch of an issuer's keys and the start of another one because a token names a key that is not among them",
        value: Setting("jwks-refetch"),
        past: "The token is refused with `invalid_credentials` (401), or with `unavailable` (503) if that fetch has failed",
    }
    JWKS_OUTAGE "jwks_outage" {
        bounds: "Time for which the keys of an issuer are used after they were last fetched",
        value: Setting("jwks-outage"),
        past: "Tokens of that issuer are refused with `unavailable` (503)",
    }
    CALLS_FOR_JWKS "calls_for_jwks" {
        bounds: "Calls at once that wait for the keys of one issuer, at one replica",
        value: Fixed(CALLS_FOR_JWKS_AT_MOST as u64, "calls"),
        past: "`unavailable` (503), at once",
    }
    CACHED_TOKENS "cached_tokens" {
        bounds: "Tokens that were checked and are kept in memory by their hashes, at one replica",
        value: Fixed(CACHED_TOKENS_AT_MOST as u64, "tokens"),
        past: "Those that have expired are forgotten; further ones are checked at each call",
    }
    CACHED_REALMS "cached_realms" {
        bounds: "Realms of callers with tokens that are kept in memory, at one replica",
        value: Fixed(CACHED_REALMS_AT_MOST as u64, "realms"),
        past: "Further ones are looked up at each call",
    }
}
