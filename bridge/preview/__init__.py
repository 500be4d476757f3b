"""What would be sent, without sending anything: the engine on a virtual clock, against an imagined outside."""
