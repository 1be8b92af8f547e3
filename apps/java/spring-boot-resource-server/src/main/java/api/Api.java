package api;

import java.util.List;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.core.Authentication;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** What the starters make of themselves: everything behind a bearer token. */
@SpringBootApplication
@RestController
public class Api {
  public static void main(String[] arguments) {
    SpringApplication.run(Api.class, arguments);
  }

  @GetMapping("/who")
  public Map<String, Object> who(Authentication user) {
    List<String> held = user.getAuthorities().stream().map(GrantedAuthority::getAuthority).toList();
    return Map.of("sub", user.getName(), "authorities", held);
  }
}
