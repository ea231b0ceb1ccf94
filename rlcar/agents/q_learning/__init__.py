"""Code that SAC and TD3 share: transitions, actors, twin critics and settings."""
