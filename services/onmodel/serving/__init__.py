"""Starting, finding and stopping the services."""
