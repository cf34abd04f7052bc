"""How the filling of parameters is asked for and told, apart from what is computed in `sessions`."""
