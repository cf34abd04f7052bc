"""The probe: arms itself in a host process, sees its tracepoints and writes events."""
