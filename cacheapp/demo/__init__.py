"""What every worker sees of each alias: worker RPC, overview, verdict."""
