"""The questions a session is asked, one file each."""
