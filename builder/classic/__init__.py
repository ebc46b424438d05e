"""What `POST /build` of the Engine API needs: `builds` runs them, `transcript` tells of them as the classic builder does."""
