"""Tokens, and who vouches for them: the shared secrets, the key server's public keys, Better Auth's own sessions."""
