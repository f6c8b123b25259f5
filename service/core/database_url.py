"""The parameters of a database URL, of which asyncpg and libpq know different ones."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

# PostgreSQL's documentation, "Parameter Key Words" of libpq; a test compares the lists with the installed libpq.
SHARED = frozenset(
    {
        *("host", "port", "dbname", "user", "password", "passfile", "service", "options", "target_session_attrs"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
    }
)
# asyncpg would send each as a setting of the session, which the server refuses.
LIBPQ_ONLY = frozenset(
    {
        *("application_name", "fallback_application_name", "client_encoding", "connect_timeout", "channel_binding"),
        *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout"),
        *("load_balance_hosts", "gssencmode", "gssdelegation", "requirepeer", "require_auth", "replication"),
        *("sslcertmode", "sslcompression", "sslcrldir", "sslkeylogfile", "sslsni"),
        *("min_protocol_version", "max_protocol_version", "scram_client_key", "scram_server_key"),
        *("oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope"),
    }
)


def _parameters(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def unknown(url: str) -> list[str]:
    """Return the parameters that the service cannot pass to both drivers and that libpq does not know either."""
    return sorted({name for name, _ in _parameters(url)} - SHARED - LIBPQ_ONLY)


def ignored(url: str) -> list[str]:
    """Return the parameters that only migrations apply."""
    return sorted({name for name, _ in _parameters(url)} & LIBPQ_ONLY)


def for_asyncpg(url: str) -> str:
    """Return the URL without the parameters that asyncpg does not know."""
    if not ignored(url):
        return url
    shared = [(name, value) for name, value in _parameters(url) if name in SHARED]
    return urlunsplit(urlsplit(url)._replace(query=urlencode(shared)))
