"""Ray jobs: submitting, listing, following and stopping them."""
