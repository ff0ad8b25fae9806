"""What any Linux machine gives to a program: clock and loop, files, control sockets. Boards and ground use it."""
