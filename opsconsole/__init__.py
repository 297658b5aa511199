"""OpsConsole: an operations console over the PostgreSQL that holds your queue and your money."""
